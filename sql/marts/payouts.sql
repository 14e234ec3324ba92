-- A payout: what Stripe collected for it, what it kept, and what reached the bank.
--
-- Sums are over the movements that went out with it (marts.payout_items); a manual payout has no
-- list, and its sums are null. All amounts of a row are in its one currency.
--
-- grain: payout_id
with summed as (
    select
        payout_id,
        count(*) as movement_count,
        count(distinct charge_id) as charge_count,
        count(distinct invoice_id) as invoice_count,
        coalesce(sum(amount_minor) filter (category in ('charge', 'payment')), 0)::bigint
            as charged_minor,
        -coalesce(
            sum(amount_minor) filter (
                category in ('refund', 'refund_failure', 'partial_capture_reversal')
            ), 0
        )::bigint as refunded_minor,
        -coalesce(sum(amount_minor) filter (category in ('dispute', 'dispute_reversal')), 0)::bigint
            as disputed_minor,
        sum(fee_minor)::bigint - coalesce(sum(amount_minor) filter (category = 'fee'), 0)::bigint
            as fee_minor,
        sum(net_minor)::bigint as net_minor,
    from marts.payout_items
    where payout_id is not null
    group by 1
)

select
    payout_id,  -- Stripe's
    created_at,  -- UTC
    arrives_at,  -- when the bank is to have it
    status,  -- pending | in_transit | paid | failed | canceled
    automatic,  -- false: by hand, Stripe tells no list of it
    currency,
    amount_minor,  -- what went to the bank
    charged_minor,  -- by charges
    refunded_minor,  -- given back, less what failed; captures undone included
    disputed_minor,  -- taken by disputes, less what was given back
    fee_minor,  -- what Stripe kept
    net_minor - charged_minor + refunded_minor + disputed_minor + fee_minor
        as other_minor,  -- everything else
    net_minor,  -- of all its movements
    amount_minor - net_minor as difference_minor,  -- what is unexplained
    movement_count,  -- balance transactions
    charge_count,  -- charges behind them
    invoice_count,  -- gateway invoices
    trace_id,  -- what the bank calls it
    failure_code,  -- Stripe's word, where the bank refused it
from staging.payouts as payouts
left join summed using (payout_id)
