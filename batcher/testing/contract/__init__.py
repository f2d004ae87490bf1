"""The contracts as tests to inherit from: the laws of a sink, a source, a format, a transform and a dead-letter queue.

    from batcher.testing.contract.sink import SinkCase, SinkLaws

    class TestMySink(SinkLaws):
        @pytest.fixture
        def case(self, tmp_path):
            return MyCase(tmp_path)

Every plug-in that ships runs them. A law that says nothing about a plug-in, because it lacks the capability, passes.
"""
