"""Token sequences: from files, the Hugging Face hub or the standard library; packed, cut and checked."""
