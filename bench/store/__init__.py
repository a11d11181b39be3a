"""What a store costs as it grows."""
