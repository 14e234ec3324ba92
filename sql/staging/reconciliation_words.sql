-- What there is to tell of an item beside its sums, in words: charges where there are several,
-- refunds, disputes, Stripe's bills, contradictions.
--
-- Only items that need more than one sentence with one charge in it have rows here, so that a
-- million plain ones cost no text. At most five things of one topic are named. Amounts are in
-- major units of their currency, days are UTC.
--
-- grain: item_id, topic
with events as (
    select
        charge_id,
        case when is_counted then 'refunds' when status = 'failed' then 'failed_refunds'
        end as topic,
        refund_id as event_id,
        created_at,
        currency,
        amount_minor,
        case when status <> 'succeeded' then coalesce(failure_reason, status) end as note,
    from staging.refunds
    where is_counted or status = 'failed'
    union all
    select
        charge_id,
        case outcome
            when 'open' then 'open_disputes' when 'lost' then 'lost_disputes'
            when 'won' then 'won_disputes' else 'inquiries'
        end as topic,
        dispute_id as event_id,
        created_at,
        currency,
        amount_minor,
        case when outcome = 'open' then concat_ws(', ', reason, status) end as note,
    from staging.disputes
),

eventful as (  -- charges of which there is more to tell than their amount
    select charge_id from events
    union
    select charge_id from staging.contested_claims
    union
    select paid.charge_id
    from staging.charge_stripe_invoices as paid
    inner join staging.stripe_invoice_ties as ties using (stripe_invoice_id)
    where not ties.is_tied
),

linked as (
    select
        invoice_id as item_id,
        charge_id,
        role,
        charged_at,
        currency,
        amount_minor,
        is_other_currency,
        invoice_id in (select invoice_id from staging.crowded_invoices) as is_crowded,
    from staging.odd_charges
    where role <> 'conflict'
        and (is_crowded or charge_id in (select charge_id from eventful))
),

names as (  -- each id that a contradiction names, by its strongest rung
    select 'charge ' || charge_id as named_by, infery_invoice_id, min(rung) as rung,
    from staging.contested_claims
    where is_contradiction and infery_invoice_id is not null
    group by 1, 2
    union all
    select 'Stripe invoice ' || stripe_invoice_id as named_by, infery_invoice_id, min(rung) as rung,
    from staging.stripe_invoice_claims
    where infery_invoice_id is not null and stripe_invoice_id in (
        select stripe_invoice_id from staging.stripe_invoice_ties where not is_tied
    )
    group by 1, 2
    union all
    select
        'Stripe invoice ' || stripe_invoice_id as named_by,
        linked.item_id as infery_invoice_id,
        0 as rung,
    from staging.stripe_invoice_ties as ties
    inner join staging.charge_stripe_invoices as paid using (stripe_invoice_id)
    inner join linked using (charge_id)
    where not ties.is_tied and paid.told_by <> 'report' and linked.role in ('settled', 'waiting')
    group by 1, 2
),

name_lists as (
    select
        named_by,
        string_agg(
            infery_invoice_id || ' by ' || case rung
                when 0 then 'a charge that paid it'
                when 1 then 'charge metadata' when 2 then 'charge invoice id'
                when 3 then 'payment intent metadata' when 4 then 'stripe invoice metadata'
                when 5 then 'subscription metadata' when 6 then 'gateway reference'
                when 7 then 'report invoice id'
            end, ', '
            order by rung, infery_invoice_id
        ) as words,
    from names
    group by 1
),

sayings as (
    select
        item_id,
        unnest(
            case
                when role = 'dead' then ['dead']
                when is_other_currency then [role, 'other_currencies']
                else [role]
            end
        ) as topic,
        charged_at as said_at,
        charge_id as thing,
        currency,
        amount_minor,
        null as note,
        null as before,
        null as words,
    from linked
    where is_crowded
    union all by name
    select
        infery_invoice_id as item_id,
        'test' as topic,
        created_at as said_at,
        charge_id as thing,
        currency,
        amount_minor,
    from staging.charge_ladders
    where state = 'test' and infery_invoice_id is not null
    union all by name
    select
        coalesce(linked.item_id, events.charge_id) as item_id,
        topic,
        created_at as said_at,
        event_id as thing,
        events.currency,
        events.amount_minor,
        note,
        case when linked.item_id is not null and topic <> 'refunds' then events.charge_id || ': '
        end as before,
    from events
    left join linked using (charge_id)
    where linked.role is null or linked.role = 'settled' or topic = 'inquiries'
    union all by name
    select
        infery_invoice_id as item_id,
        case when is_bill then 'bills' else 'void_bills' end as topic,
        ties.created_at as said_at,
        ties.stripe_invoice_id as thing,
        ties.currency,
        ties.total_minor as amount_minor,
        concat_ws(
            ', ',
            ties.status,
            case when out_of_band_minor <> 0 then 'paid in part or whole past Stripe' end
        ) as note,
    from staging.stripe_invoice_ties as ties
    where is_tied
        and (ties.status <> 'paid' or out_of_band_minor <> 0 or is_other_currency or is_other_total)
    union all by name
    select
        infery_invoice_id as item_id,
        'other_currencies' as topic,
        created_at as said_at,
        stripe_invoice_id as thing,
        currency,
        total_minor as amount_minor,
    from staging.stripe_invoice_ties
    where is_tied and is_bill and is_other_currency
    union all by name
    select
        linked.item_id,
        'other_workspaces' as topic,
        read_from as thing,
        case rung
            when 3 then 'PaymentIntent ' when 4 then 'Stripe invoice '
            when 5 then 'the subscription of Stripe invoice ' else 'charge '
        end || read_from || ' says ' || claims.workspace_id as words,
    from staging.contested_claims as claims
    inner join linked using (charge_id)
    inner join staging.invoices as invoices on invoices.infery_invoice_id = linked.item_id
    where linked.role in ('settled', 'waiting') and claims.workspace_id <> invoices.workspace_id
    union all by name
    select
        ties.infery_invoice_id as item_id,
        'other_workspaces' as topic,
        ties.stripe_invoice_id as thing,
        case claims.rung when 5 then 'the subscription of ' else '' end || 'Stripe invoice '
        || ties.stripe_invoice_id || ' says ' || claims.workspace_id as words,
    from staging.stripe_invoice_ties as ties
    inner join staging.stripe_invoice_claims as claims using (stripe_invoice_id)
    inner join staging.invoices as invoices
        on invoices.infery_invoice_id = ties.infery_invoice_id
    where ties.is_tied and ties.is_other_workspace
        and claims.workspace_id <> invoices.workspace_id
    union all by name
    select
        invoice_id as item_id,
        'conflicts' as topic,
        charged_at as said_at,
        charge_id as thing,
        null as before,
        'charge ' || charge_id || ' names ' || name_lists.words as words,
    from staging.odd_charges as charges
    inner join name_lists on name_lists.named_by = 'charge ' || charges.charge_id
    where role = 'conflict'
    union all by name
    select
        charge_id as item_id,
        'conflicts' as topic,
        ladders.created_at as said_at,
        charge_id as thing,
        name_lists.words,
    from staging.charge_ladders as ladders
    inner join name_lists on name_lists.named_by = 'charge ' || ladders.charge_id
    where has_several
    union all by name
    select
        infery_invoice_id as item_id,
        'conflicts' as topic,
        created_at as said_at,
        stripe_invoice_id as thing,
        'Stripe invoice ' || stripe_invoice_id || ' names ' || name_lists.words as words,
    from staging.stripe_invoice_ties as ties
    inner join name_lists on name_lists.named_by = 'Stripe invoice ' || ties.stripe_invoice_id
    where not is_tied
),

worded as (  -- a Stripe invoice's claim is told once, though by its charge too
    select distinct
        item_id,
        topic,
        said_at,
        thing,
        coalesce(before, '') || coalesce(
            words,
            thing || ' ('
            || in_words(
                amount_minor, currency, case when currencies.currency is null then 2 else places end
            )
            || coalesce(', ' || strftime(said_at, '%Y-%m-%d'), '')
            || coalesce(', ' || replace(note, '_', ' '), '') || ')'
        ) as said,
    from sayings
    left join staging.currencies as currencies using (currency)
)

select
    item_id,  -- as in marts.invoice_reconciliation; of a topic it may show nowhere
    topic,
    array_to_string(list(said order by said_at, thing, said)[:5], ', ')
    || case when count(*) > 5 then ' and ' || (count(*) - 5) || ' more' else '' end as words,
from worded
group by 1, 2
