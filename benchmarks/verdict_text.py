"""A survey's verdict and its checks, a line each."""

import xarray


def print_verdict(survey: xarray.Dataset) -> None:
    print(str(survey.verdict_sentence.values))
    for name, value, limit, passed in zip(
        survey.check_name.values, survey.check_value.values, survey.check_limit.values, survey.check_passed.values,
        strict=True,
    ):  # fmt: skip
        print(f"  {name}: {value:.3g} (limit {limit}) {'passed' if passed == 1 else 'failed' if passed == 0 else '-'}")
