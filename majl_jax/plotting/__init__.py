"""Pictures that are drawn while a song streams by, in constant memory."""
