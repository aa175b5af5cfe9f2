"""OpenAI's public wire: requests, responses, errors and legacy paths, as its clients expect them."""
