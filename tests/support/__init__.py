"""Helpers of the tests. They use the public interface only."""
