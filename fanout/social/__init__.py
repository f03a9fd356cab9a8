"""Posts of our accounts at social networks: one a post and account, remembered by `threads`, made by `poster`."""
