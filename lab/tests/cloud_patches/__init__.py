"""Each correction of moto, as a program meets it: through the API."""
