"""Each correction of moto, as seen through the API."""
