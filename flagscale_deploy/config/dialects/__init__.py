"""Each published form of the configuration, translated into models; other folders do not know the forms."""
