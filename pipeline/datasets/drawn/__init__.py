"""Generated data: digits, faces and golden images. Every folder but ``preparation`` may be used here."""
