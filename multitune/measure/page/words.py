"""What the page says, in two languages side by side; a switch that needs no script shows one of them."""

from __future__ import annotations

from multitune.measure.page.markup import Markup, joined, tag

WORDS = {
    "figures": ("Figures", "指标"),
    "figures_note": (
        "95 % intervals from drawing rows with replacement (Wilson's where every draw says the same). The bar: the interval, its dot the "
        "figure, hollow marks what stands beside it.",
        "95 % 区间由有放回地抽取行得到（每次抽取都一样时为 Wilson 区间）。横条：区间，实心点为指标值，空心标记为并列的基线。",
    ),
    "figure": ("figure", "指标"),
    "value": ("value", "值"),
    "interval": ("95 % interval", "95 % 区间"),
    "majority": ("majority", "多数类"),
    "mean": ("mean", "均值"),
    "chance": ("chance", "随机"),
    "untuned": ("untuned", "微调前"),
    "against": ("against", "对照"),
    "rows": ("rows", "行"),
    "findings": ("Findings", "发现"),
    "no_findings": ("Nothing stands out.", "没有值得注意的地方。"),
    "remedy": ("What to do", "建议"),
    "ablations": ("Does it use its parts?", "它用到各个部分了吗？"),
    "ablations_note": (
        "The same figure with a part left out, and with that part taken from other rows. No fall means that the part is not used.",
        "去掉某个部分，或换成其他行的该部分之后的同一指标。没有下降说明没有用到它。",
    ),
    "part": ("part", "部分"),
    "with_all": ("with all parts", "完整输入"),
    "left_out": ("left out", "去掉"),
    "shuffled": ("shuffled", "打乱"),
    "cost": ("cost of shuffling", "打乱的代价"),
    "slices": ("Slices", "切片"),
    "sources": ("Sources", "来源"),
    "slice": ("slice", "切片"),
    "source": ("source", "来源"),
    "classes": ("Classes", "类别"),
    "class": ("class", "类别"),
    "answer": ("answer", "答案"),
    "precision": ("precision", "精确率"),
    "recall": ("recall", "召回率"),
    "confusion": ("Confusion", "混淆矩阵"),
    "confusion_note": (
        "A row for each true class. The darker, the greater the share of its row; a good model is dark on the diagonal alone.",
        "每行是一个真实类别。颜色越深，占该行的比例越大；好的模型只有对角线是深色。",
    ),
    "reliability": ("Reliability", "可靠性"),
    "reliability_note": (
        "Of the answers given with so much confidence, how many are right? On the dashed line a model is as sure as it should be; below, "
        "too sure.",
        "给出某一置信度的答案中有多少是对的？落在虚线上说明恰如其分，在其下方说明过于自信。",
    ),
    "confidence": ("confidence", "置信度"),
    "right": ("right", "正确率"),
    "curves": ("Training", "训练过程"),
    "curves_note": (
        "Over optimizer steps. Where there are many, a point is the mean of its neighbours. The upright line is the step whose weights "
        "were kept.",
        "横轴为优化步。步数很多时，每个点是邻近若干步的均值。竖线是被保留权重的那一步。",
    ),
    "loss": ("Loss", "损失"),
    "lr": ("Learning rate", "学习率"),
    "gradient_norm": ("Gradient norm, before clipping", "梯度范数（裁剪前）"),
    "update_ratio": ("Update to weight", "更新量与权重之比"),
    "loss_share": ("Each term's share of the loss", "各项占损失的份额"),
    "learned_share": ("What multiplies each term, as learned", "学到的各项乘数"),
    "part_share": ("Each part's pull on the loss", "各部分对损失的牵引份额"),
    "padding": ("Share of padding", "填充所占的份额"),
    "seconds": ("Seconds of a step, by phase", "每步各阶段用时（秒）"),
    "time_spent": ("Where the time of steps went: ", "各步的时间花在："),
    "drift": ("Drift from the start", "偏离起点的程度"),
    "worst": ("Where it does worst", "最差的行"),
    "best": ("Where it does best", "最好的行"),
    "truth": ("truth", "真值"),
    "said": ("said", "输出"),
    "nothing": ("none", "无"),
    "row_loss": ("loss", "损失"),
    "row_apart": ("distance", "距离"),
    "media_left_out": ("not shown: the page has its limit of media", "未显示：页面媒体已达上限"),
    "unshowable": ("cannot be shown", "无法显示"),
    "ledger": ("What became of the rows", "数据行的去向"),
    "ledger_clean": ("Every row passed as it was.", "所有行都原样通过。"),
    "fate": ("fate", "处置"),
    "cause": ("cause", "原因"),
    "count": ("how often", "次数"),
    "example": ("such as", "例如"),
    "plan": ("The plan", "计划"),
    "facts": ("The run", "运行"),
    "more": ("more are not shown", "项未显示"),
}
NAMES = {  # of facts about a run, and of lines and cells that are ours; they stand for themselves in English
    "steps": "步数",
    "weights of step": "权重取自第几步",
    "weights": "权重",
    "seconds": "秒",
    "steps/s": "步/秒",
    "parameters moved": "变动的参数",
    "device": "设备",
    "threads": "线程",
    "plan": "计划",
    "all": "全部",
    "wait": "等待数据",
    "forward": "前向",
    "forward_again": "前向（第二遍）",
    "backward": "反向",
    "optimizer": "优化器",
    "truth \\ prediction": "真值 \\ 预测",
}
LANGUAGES = (("en", "English"), ("zh", "中文"))


def say(word: str) -> Markup:
    """What the page says for a word, in both languages; a word that it does not know stands for itself."""
    return _both(*WORDS.get(word, (word, word)))


def named(name: str) -> Markup:
    """A name of ours in both languages; a name that it does not know stands once, as it is."""
    return _both(name, NAMES[name]) if name in NAMES else joined(name)


def _both(english: str, chinese: str) -> Markup:
    return joined(tag("span", english, class_="en", lang="en"), tag("span", chinese, class_="zh", lang="zh"))


def switch() -> Markup:
    """The choice of language; it must stand before what it rules."""
    made = (
        joined(
            tag("input", type="radio", name="language", id=f"in-{code}", checked=code == "en"),
            tag("label", name, for_=f"in-{code}", lang=code),
        )
        for code, name in LANGUAGES
    )
    return joined(*made)
