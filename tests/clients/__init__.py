"""Programs and libraries of others, unchanged, against a real server: `make clients-test`.

They want versions of shared packages that Chatwright does not, so they have an environment of their own (`requirements.txt`,
`constraints.txt`), and the server that they talk with is started from Chatwright's. Where they are not installed they are skipped.
"""
