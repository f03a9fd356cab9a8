"""Pictures: made harmless and small when they come in (`pictures`), kept by what they are (`shelf`)."""
