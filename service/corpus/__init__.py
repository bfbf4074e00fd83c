"""From documents to a tokenizer and shards."""
