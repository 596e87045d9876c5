"""What `cnnsearch report --from` tells programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cnnsearch.exchange.foreign import Foreign, ForeignSetting, State
from cnnsearch.exchange.foreign_page import ForeignPage
from cnnsearch.exchange.judged import Judged
from cnnsearch.told_exchange import ForeignClaim, ForeignReport, ForeignSetting as ToldSetting
from cnnsearch.told_parts import Answer


def of_foreign(foreign: Foreign, page: ForeignPage, stages: Sequence[Judged], report: str) -> ForeignReport:
    """The report as an object; `report` is the path of its HTML."""
    states, roles = Counter(trial.state for trial in foreign.trials), foreign.roles
    return ForeignReport(
        source=foreign.raw.source,
        tool=foreign.raw.tool,
        report=report,
        trials=len(foreign.trials),
        counts={state.value: states[state] for state in State},
        score=roles.score,
        judged_by=roles.judged,
        is_larger_better=roles.is_larger_better,
        seed=roles.seed,
        stage=roles.stage,
        axes=list(roles.axes),
        left_out=list(roles.left_out),
        answer=Answer(sentence=page.answer.sentence, verdict=page.answer.verdict),
        best=_setting(stages[0], stages[0].best) if stages else None,
        findings=[ForeignClaim(sentence=one.sentence, verdict=one.verdict) for one in page.findings],
        settings=sum(len(one.settings) for one in stages),
    )


def _setting(one: Judged, setting: ForeignSetting) -> ToldSetting:
    interval = one.interval(setting)
    return ToldSetting(
        stage=setting.stage,
        values=dict(setting.values),
        trials=list(setting.trials),
        score=setting.mean,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        is_worse=setting.index in one.worse,
    )
