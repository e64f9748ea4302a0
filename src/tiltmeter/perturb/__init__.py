"""What is added at the site: directions, the sources they are drawn from, the paths along them."""
