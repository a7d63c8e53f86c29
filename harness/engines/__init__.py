"""One file per engine; every heavy import stands inside the class that needs it."""
