"""A real browser, and what the project shows in one: for tests of pages and for pictures of them."""
