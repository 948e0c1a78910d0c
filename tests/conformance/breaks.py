"""Which check must catch which broken adapter, and what it says: failing for another reason proves nothing."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance import checks_dead_letters as dead_letters
from tests.conformance import checks_delivery as delivery
from tests.conformance import checks_memory as memory
from tests.conformance import checks_preparing as preparing
from tests.conformance import checks_publishing as publishing
from tests.conformance import checks_recovery as recovery
from tests.conformance import checks_replies as replies
from tests.conformance import checks_settlement as settlement
from tests.conformance import checks_transactions as transactions
from tests.conformance.broken import (
    AcknowledgesAfterAnError,
    AcknowledgesFirst,
    CommitsPastARetry,
    ConsumesDeadLetters,
    CountsMarkers,
    DeclaresOnlyOnce,
    DeliversTwice,
    DeliversWhatWasTakenBack,
    DropsOddMessages,
    ForgetsDeadlines,
    GivesBackToEverybody,
    HidesFailures,
    IgnoresBounds,
    LosesDeadLetters,
    LosesHeaders,
    LosesWhatItGivesBack,
    NeverSettles,
    OvertakesAFailure,
    PreparesNothing,
    PublishesUnconfirmed,
    ReordersWithinAKey,
    RunsWhatWasPrepared,
    Sound,
    SwallowsARetry,
)
from tests.conformance.harness import Check

BREAKS: Mapping[type[Sound], tuple[tuple[Check, str], ...]] = {
    AcknowledgesFirst: ((settlement.check_what_a_closed_consumer_left_goes_to_the_next, "lost"),),
    NeverSettles: ((settlement.check_what_is_acknowledged_never_comes_again, "delivered twice"),),
    PublishesUnconfirmed: ((publishing.check_what_is_confirmed_is_delivered_once, "lost"),),
    HidesFailures: ((publishing.check_a_refused_message_stops_its_key_and_nothing_else, "passes as confirmed"),),
    ReordersWithinAKey: ((publishing.check_one_key_keeps_its_order, "out of order"),),
    OvertakesAFailure: (
        (publishing.check_a_refused_message_stops_its_key_and_nothing_else, "passes as confirmed"),
    ),
    LosesHeaders: ((publishing.check_bytes_and_headers_arrive_as_sent, "headers lost"),),
    SwallowsARetry: (
        (settlement.check_a_retry_comes_again_in_order, "lost"),
        (settlement.check_a_retry_outlives_its_consumer, "a retry comes again"),
    ),
    CommitsPastARetry: ((settlement.check_a_retry_outlives_its_consumer, "lost"),),
    AcknowledgesAfterAnError: ((settlement.check_a_handler_that_raises_gets_its_batch_again, "lost"),),
    DeliversTwice: (
        (publishing.check_what_is_confirmed_is_delivered_once, "twice"),
        (delivery.check_every_subscriber_gets_everything, "twice"),
    ),
    DropsOddMessages: ((delivery.check_odd_messages_are_delivered_not_lost, "lost"),),
    IgnoresBounds: (
        (delivery.check_batches_are_bounded_and_run_one_at_a_time, "more than batch_max"),
        (delivery.check_no_more_than_in_flight_max_is_handed_over, "more than in_flight_max"),
        (memory.check_large_messages_are_held_one_after_the_other, "bytes at once"),
        (preparing.check_the_next_batch_is_prepared_while_one_runs, "more than in_flight_max"),
    ),
    RunsWhatWasPrepared: (
        (
            preparing.check_what_was_prepared_behind_a_retry_is_abandoned,
            "not abandoned|out of order|settled twice",
        ),
        (preparing.check_leaving_abandons_what_was_prepared, "not abandoned"),
    ),
    PreparesNothing: ((preparing.check_the_next_batch_is_prepared_while_one_runs, "nothing was prepared"),),
    DeclaresOnlyOnce: ((recovery.check_what_somebody_deleted_comes_back, "again"),),
    DeliversWhatWasTakenBack: (
        (transactions.check_what_a_producer_took_back_is_never_delivered, "was delivered"),
    ),
    CountsMarkers: ((transactions.check_nothing_waits_behind_the_last_event_of_a_transaction, "nothing waits"),),
    ForgetsDeadlines: ((replies.check_a_request_whose_time_is_over_is_not_begun, "begun when its time was over"),),
    LosesDeadLetters: (
        (dead_letters.check_a_dead_letter_is_kept_whole_and_looking_changes_nothing, "dead letters lost"),
    ),
    GivesBackToEverybody: (
        (dead_letters.check_what_is_given_back_reaches_its_subscriber_alone, "somebody else got it"),
    ),
    LosesWhatItGivesBack: ((dead_letters.check_what_is_given_back_waits_for_its_subscriber, "none lost"),),
    ConsumesDeadLetters: (
        (dead_letters.check_a_dead_letter_is_kept_whole_and_looking_changes_nothing, "dead letters lost"),
    ),
}
