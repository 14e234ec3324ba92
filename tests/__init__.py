"""What is expected of the house; mirrors its rooms."""
