"""What goes out: files for elsewhere, and alerts. Reads what is published; decides nothing."""
