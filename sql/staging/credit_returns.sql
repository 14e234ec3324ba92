-- Money of a paid invoice that went back, or may: a refund or a dispute, and the part of the
-- invoice's pack that goes with it.
--
-- facts/reconciliation.md, section 8: taken back after the k-th is the pack times all that went
-- back by then over what charges should bring, rounded half-even to nine places, less what was
-- taken before; refunds that correct an excess come off first and cost nothing. So a full return
-- takes exactly the pack, in however many parts. What was undone since (a refund that failed or was
-- canceled, a dispute that was won) stands in nobody's way: its part is what it would have been
-- alone, upon what counts before it.
--
-- grain: event_id
with packs as (
    select
        invoice_id,
        invoices.workspace_id,
        rows.currency,
        expected_minor,
        greatest(0, charged_minor + out_of_band_minor - expected_minor) as excess_minor,
        credits,
    from marts.invoice_reconciliation as rows
    inner join staging.invoices as invoices
        on invoices.infery_invoice_id = rows.invoice_id
    where invoices.status = 'paid' and credits > 0
),

events as (
    select
        refund_id as event_id,
        'refund' as event,
        case when is_counted then 'counted' else 'undone' end as outcome,
        charge_id,
        created_at,
        amount_minor,
        currency,
    from staging.refunds
    union all
    select dispute_id, 'dispute', replace(outcome, 'won', 'undone'), charge_id, created_at,
        amount_minor, currency,
    from staging.disputes
    where outcome <> 'inquiry'
),

came_back as (  -- when what was undone came back, where Stripe has booked it
    select source_id as event_id, min(created_at) as undone_at
    from staging.balance_transactions
    where reporting_category in ('refund_failure', 'dispute_reversal')
    group by 1
),

returned as (
    select
        events.*,
        packs.* exclude (currency),
        coalesce(
            sum(case when outcome <> 'undone' then events.amount_minor end) over earlier, 0
        ) as before_minor,
    from events
    inner join marts.invoice_charges as linked using (charge_id)
    inner join packs
        on packs.invoice_id = linked.invoice_id and packs.currency = events.currency
    where linked.role = 'settled' and not linked.is_other_currency
    window earlier as (
        partition by packs.invoice_id
        order by events.created_at, event_id
        rows between unbounded preceding and 1 preceding
    )
),

shares as (  -- of what charges should bring, before it and with it
    select
        *,
        least(greatest(before_minor - excess_minor, 0), expected_minor)::hugeint as share_before,
        least(greatest(before_minor + amount_minor - excess_minor, 0), expected_minor)::hugeint
            as share_with,
        (credits * 1000000000::hugeint)::hugeint as nanos,
        greatest(expected_minor, 1)::hugeint as whole,  -- nothing owed: every share is 0
    from returned
),

rounded as (  -- half-even, in billionths of a credit
    select
        *,
        list_transform(
            [share_before, share_with],
            lambda share: nanos * share // whole + case
                when nanos * share % whole * 2 > whole then 1
                when nanos * share % whole * 2 = whole then nanos * share // whole % 2
                else 0
            end
        ) as taken,
    from shares
)

select
    event_id,  -- the refund or dispute
    event,  -- refund | dispute
    outcome,  -- counted (a refund) | open | lost (a dispute) | undone
    invoice_id,
    workspace_id,  -- the invoice's
    charge_id,
    created_at,
    undone_at,  -- when it came back; null: it did not, or that is not known
    amount_minor,  -- what went back
    currency,
    ((taken[2] - taken[1])::decimal(28, 0) * 0.000000001::decimal(9, 9))::decimal(38, 9)
        as share_credits,  -- what of the pack goes with it
from rounded
left join came_back using (event_id)
