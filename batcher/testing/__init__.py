"""Stand-ins and servers for tests and benchmarks, shipped because people who write sinks need them too."""
