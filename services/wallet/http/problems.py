"""The wallet's refusals as HTTP tells them: which error of its rules is which kind of problem."""

from __future__ import annotations

from services.wallet.domain import accounts, administration, distributions, quotes, receipts, sign_in, transfers
from shared.http.idempotency import KEY_REUSED
from shared.http.problems import ProblemKind

TRANSFER_ID = "0198c0de-0000-7000-8000-000000000001"
ACCOUNT_ID = "0198c0de-0000-7000-8000-00000000000a"
OTHER_ID = "0198c0de-0000-7000-8000-00000000000b"
USER_NOT_KNOWN_RETRY_S = 1

NO_TRANSFER = ProblemKind(
    404, "transfer-not-found", "No such transfer", example=f"transfer {TRANSFER_ID} does not exist"
)
NO_ACCOUNT = ProblemKind(
    404, "account-not-found", "No such account", example=f"account {ACCOUNT_ID} does not exist"
)
ENDED = ProblemKind(
    409, "transfer-ended", "The transfer has ended", example=f"transfer {TRANSFER_ID} is completed already"
)
FUNDS = ProblemKind(
    409,
    "insufficient-funds",
    "More than is available",
    example=f"account {ACCOUNT_ID} has 500 available, not 600",
)
LIMIT = ProblemKind(
    409, "limit-exceeded", "More than a limit leaves", example="500 may be sent in one transfer, not 600"
)
FROZEN = ProblemKind(409, "account-frozen", "The account is frozen", example=f"account {ACCOUNT_ID} is frozen")
RECEIVER = ProblemKind(
    409,
    "receiver-not-possible",
    "Nothing can be sent there",
    example=f"account {OTHER_ID} is in USD, not in KRW",
)
INACTIVE = ProblemKind(
    409,
    "user-not-active",
    "The user is deactivated, or not known, or not yet",
    USER_NOT_KNOWN_RETRY_S,
    example="user 0198c0de-0000-7000-8000-00000000000c is deactivated",
)
FEE_CHANGED = ProblemKind(
    409, "fee-changed", "Another fee than was agreed to", example="the fee is 500 now, not 0"
)
NOT_SIGNED_IN = ProblemKind(401, "not-signed-in", "Sign in first", example="sign in first, or again")
WRONG_PASSWORD = ProblemKind(
    401, "wrong-password", "The name or the password is wrong", example="nobody of this name has this password"
)
TOO_MANY_ATTEMPTS = ProblemKind(
    429,
    "too-many-attempts",
    "After wrong passwords this name has to wait",
    300,
    example="after wrong passwords this name has to wait; try again later",
)
NOT_ALLOWED = ProblemKind(
    403, "not-allowed", "This is for another role", example="this is for members; admin is an administrator"
)
NO_USER = ProblemKind(
    404,
    "user-not-found",
    "No such user",
    example="user 0198c0de-0000-7000-8000-00000000000c is not known here, or not yet",
)
NO_ACCOUNT_TYPE = ProblemKind(
    404, "account-type-not-found", "No such account type", example="there is no account type plain"
)
NAME_TAKEN = ProblemKind(
    409, "name-taken", "Somebody else signs in with this name", example="somebody else signs in as ada"
)
FULL = ProblemKind(
    409,
    "balance-too-large",
    "The account would hold too much",
    example=f"account {ACCOUNT_ID} would hold too much",
)
NO_DISTRIBUTION = ProblemKind(
    404,
    "distribution-not-found",
    "No such distribution",
    example="there is no such distribution in this room",
)
UNSPLITTABLE = ProblemKind(
    409,
    "amount-too-small",
    "The amount cannot be split among so many",
    example="2 cannot be split among 3: 1 to 1000, a unit each",
)
WHICH_ACCOUNT = ProblemKind(
    409,
    "account-not-said",
    "Say from which account",
    example="say from which account: user 0198c0de-0000-7000-8000-00000000000c has 2",
)
OVER = ProblemKind(
    409,
    "distribution-over",
    "The distribution is over",
    example="it is over: what was left went back to the giver",
)
NOTHING_LEFT = ProblemKind(
    409, "nothing-left", "Every share is taken", example="there is nothing left: every share is taken"
)
NOT_FOR_GIVER = ProblemKind(409, "not-for-giver", "Who gives does not take", example="who gives does not take")
RECEIVED = ProblemKind(
    409, "already-received", "The user has a share already", example="this user has a share already, of 120"
)
NO_RECEIPT = ProblemKind(
    404, "receipt-not-found", "No such receipt", example=f"receipt {TRANSFER_ID} does not exist"
)
LATE = ProblemKind(
    504,
    "no-answer-in-time",
    "There is no answer in time",
    1,
    example=f"nobody began it in time, and nobody will; what comes of it is at /receipts/{TRANSFER_ID}",
)
NOT_ASKED = ProblemKind(
    503,
    "not-answered",
    "The question was not answered",
    1,
    example=f"nobody began it in time, and nobody will; what comes of it is at /receipts/{TRANSFER_ID}",
)
FOR_MEMBERS = FOR_ADMINISTRATORS = (NOT_SIGNED_IN, NOT_ALLOWED)
PROBLEMS: dict[type[Exception], ProblemKind] = {
    transfers.TransferNotFoundError: NO_TRANSFER,
    accounts.AccountNotFoundError: NO_ACCOUNT,
    transfers.TransferEndedError: ENDED,
    accounts.InsufficientFundsError: FUNDS,
    quotes.LimitExceededError: LIMIT,
    quotes.FeeChangedError: FEE_CHANGED,
    accounts.AccountFrozenError: FROZEN,
    transfers.ReceiverError: RECEIVER,
    quotes.MemberInactiveError: INACTIVE,
    administration.UserNotFoundError: NO_USER,
    administration.AccountTypeNotFoundError: NO_ACCOUNT_TYPE,
    sign_in.NameTakenError: NAME_TAKEN,
    accounts.BalanceTooLargeError: FULL,
    accounts.AccountNotSaidError: WHICH_ACCOUNT,
    distributions.DistributionNotFoundError: NO_DISTRIBUTION,
    distributions.TooFewUnitsError: UNSPLITTABLE,
    distributions.DistributionClosedError: OVER,
    distributions.NothingLeftError: NOTHING_LEFT,
    distributions.NotForGiverError: NOT_FOR_GIVER,
    distributions.AlreadyReceivedError: RECEIVED,
    receipts.ReceiptNotFoundError: NO_RECEIPT,
    receipts.ReceiptKeyReusedError: KEY_REUSED,
    sign_in.NotSignedInError: NOT_SIGNED_IN,
    sign_in.WrongPasswordError: WRONG_PASSWORD,
    sign_in.TooManyAttemptsError: TOO_MANY_ATTEMPTS,
    sign_in.NotAllowedError: NOT_ALLOWED,
}
