"""The one door to SQL: durable, sealed state of one site."""
