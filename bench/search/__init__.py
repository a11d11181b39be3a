"""Vector search side by side, and what each stage costs."""
