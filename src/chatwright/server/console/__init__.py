"""The web app's own API, under /api: signing in, one's account and keys, and users. Unknown fields are refused."""
