"""How problems are written and ordered."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.problems import ConfigError, Problem, in_order


class ProblemTests(SynchronousTestCase):
    def test_a_problem_is_one_line_with_file_line_and_key(self) -> None:
        problem = Problem("etc/mailserver.toml", 14, "listener.smtp.tls", "use TLS")
        self.assertEqual(str(problem), "etc/mailserver.toml:14: listener.smtp.tls: use TLS")

    def test_a_warning_says_that_it_is_one(self) -> None:
        self.assertEqual(str(Problem("f", 1, "k", "t", warning=True)), "f:1: k: warning: t")

    def test_the_error_tells_all_of_them(self) -> None:
        problems = (Problem("f", 1, "a", "x"), Problem("f", 2, "b", "y"))
        self.assertEqual(str(ConfigError(problems)), "f:1: a: x\nf:2: b: y")
        self.assertEqual(ConfigError(problems).problems, problems)

    def test_they_are_sorted_by_line_then_key_and_told_once(self) -> None:
        first, second, third = Problem("f", 2, "b", "x"), Problem("f", 10, "a", "x"), Problem("f", 10, "b", "x")
        self.assertEqual(in_order([third, second, first, second]), (first, second, third))
