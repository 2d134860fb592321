"""What a call hands over, read once and shared by all losses of a sum."""
