"""What runs beside the servers, in processes of its own."""
