"""A job in ten lines: prices side by side, then their sum less a discount. docs/jobs.md explains it."""

from shared.jobs import JobContext, Retry, Signature, job, map_over


@job(retries=Retry(5, initial_s=0.05, on=(ConnectionError,)))
async def price_of(sku: str, ctx: JobContext) -> int:
    if sku == "POT" and ctx.attempt == 1:
        raise ConnectionError("the price list does not answer, once")
    return 100 * len(sku)


@job
def discounted(prices: list[int], percent: int) -> int:
    return sum(prices) * (100 - percent) // 100


def basket(skus: list[str]) -> Signature:
    return map_over(price_of, skus, then=discounted.s(10))
