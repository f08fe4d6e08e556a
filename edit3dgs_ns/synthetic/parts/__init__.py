"""What edits of form add to a head or take from it: one module for each part."""
