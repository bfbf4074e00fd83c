"""Token shards, the tokenizer's byte table, and which tokens a step sees."""
