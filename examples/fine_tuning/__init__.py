"""Training a model through the API with OpenAI's own clients: a made-up country that no model knows, in forty examples."""
