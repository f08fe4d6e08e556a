"""How well what leaves this project shows the avatar: the web page in a browser, exchange formats in others' programs."""
