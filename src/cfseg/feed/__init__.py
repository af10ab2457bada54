"""What feeds a network: each case stored once, crops of it, and windows made of them."""
