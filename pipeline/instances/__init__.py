"""Pre-training, fine-tuning and use of query-based models as jobs."""
