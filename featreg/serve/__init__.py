"""The registry over HTTP: vectors and pushes for programs in any language, and a client that gets the library's bits."""
