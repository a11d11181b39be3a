"""What single operations cost as a store or a server grows, now and at an older state of the code."""
