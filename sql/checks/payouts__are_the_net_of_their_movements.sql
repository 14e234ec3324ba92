-- An automatic payout is the sum of the net of its movements (facts/reconciliation.md, section 7).
-- A manual one carries no list, and one that Stripe has not finished listing is not asked.
select
    null::date as usage_date,
    'marts.payouts' as table_name,
    'payout ' || payout_id || ' is the net of its movements' as claim,
    payouts.amount_minor::varchar as expected,
    coalesce(net_minor, 0)::varchar as found,
from marts.payouts as payouts
inner join staging.payouts as told using (payout_id)
where told.automatic and told.reconciliation_status = 'completed'
    and payouts.amount_minor <> coalesce(net_minor, 0)
