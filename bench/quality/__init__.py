"""What codes, heads and bundles keep of a model's retrieval quality."""
