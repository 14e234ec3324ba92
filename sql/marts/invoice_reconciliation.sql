-- What stands behind a gateway invoice in Stripe, or behind a charge that belongs to no invoice:
-- one status each.
--
-- facts/reconciliation.md is the specification: section 5 gives the statuses in this order, the
-- first that holds is the status, and every invoice and every charge is in exactly one. Tolerance
-- is zero.
--
-- grain: item_id
with judged as (
    select
        *,
        case
            when item_kind = 'charge' then case
                when charge_state = 'test' then 'test_mode'
                when is_contradicted then 'metadata_conflict'
                when open_dispute_at is not null then 'disputed_open'
                when has_lost_dispute then 'dispute_lost'
                when failed_refund_at is not null then 'refund_failed'
                when refunded_minor > 0 and held_minor <= 0 then 'refunded_full'
                when is_young or is_fresh then 'in_flight'
                when charge_state = 'dead' then 'zero_amount'
                else 'missing_in_gateway'
            end
            -- who is meant
            when is_contradicted then 'metadata_conflict'
            when has_other_workspace then 'workspace_mismatch'
            when has_other_currency then 'currency_mismatch'
            -- money at risk now
            when is_void and kept_minor > 0 then 'void_but_paid'
            when open_dispute_at is not null then 'disputed_open'
            when has_lost_dispute then 'dispute_lost'
            when failed_refund_at is not null then 'refund_failed'
            -- is it all undone
            when refunded_minor > 0 and received_minor >= expected_minor and held_minor <= 0
                then 'refunded_full'
            -- too little or too much
            when billed_minor <> total_minor then 'amount_mismatch'
            when gateway_status = 'paid' and received_minor > 0 and received_minor < expected_minor
                and not is_fresh then 'amount_mismatch'
            when held_minor > expected_minor and kept_charge_count >= 2
                and held_minor - least_net_minor >= expected_minor then 'duplicate_charge'
            when held_minor > expected_minor then 'overpaid'
            when received_minor < expected_minor
                and (is_fresh or (received_minor = 0 and is_young)) then 'in_flight'
            when expected_minor > 0 and received_minor = 0 then 'missing_in_stripe'
            when received_minor > 0 and received_minor < expected_minor then 'partially_paid'
            when expected_minor = 0 and received_minor = 0 then 'zero_amount'
            -- how the right amount came about
            when held_minor < expected_minor then 'refunded_partial'
            when out_of_band_minor > 0 then 'paid_out_of_band'
            when has_won_dispute then 'dispute_won'
            when is_all_first_rung then 'matched'
            else 'matched_by_fallback'
        end as status,
    from staging.reconciliation_items
),

standings as (
    select *
    from (
        values
            ('test_mode', 'agrees'), ('metadata_conflict', 'needs_person'),
            ('workspace_mismatch', 'needs_person'), ('currency_mismatch', 'needs_person'),
            ('void_but_paid', 'needs_person'), ('disputed_open', 'needs_person'),
            ('dispute_lost', 'agrees'), ('refund_failed', 'needs_person'),
            ('refunded_full', 'agrees'), ('amount_mismatch', 'needs_person'),
            ('duplicate_charge', 'needs_person'), ('overpaid', 'needs_person'),
            ('in_flight', 'waits'), ('missing_in_stripe', 'needs_person'),
            ('partially_paid', 'waits'), ('zero_amount', 'agrees'),
            ('missing_in_gateway', 'needs_person'), ('refunded_partial', 'agrees'),
            ('paid_out_of_band', 'agrees'), ('dispute_won', 'agrees'),
            ('matched', 'agrees'), ('matched_by_fallback', 'agrees')
    ) as listed (status, standing)
),

dated as (
    select
        *,
        case
            when standing = 'agrees' then null
            when status = 'disputed_open' then open_dispute_at
            when status = 'refund_failed' then failed_refund_at
            else began_at
        end as opened_at,
    from judged
    left join standings using (status)
),

worded as (  -- amounts in major units, and lists of at most five ids as text
    select
        *,
        list_transform(
            [
                total_minor, expected_minor, received_minor, refunded_minor, disputed_minor,
                held_minor, kept_minor, expected_minor - received_minor, held_minor - expected_minor
            ],
            lambda minor: upper(currency) || ' ' || case when minor < 0 then '-' else '' end
            || case
                when currencies.currency is null or places > 0 then
                    format('{:,}', abs(minor) // pow(10, coalesce(places, 2))::bigint) || '.'
                    || lpad(
                        (abs(minor) % pow(10, coalesce(places, 2))::bigint)::varchar,
                        coalesce(places, 2), '0'
                    )
                when places = 0 then format('{:,}', abs(minor))
                else format('{:,}', abs(minor)) || ' minor units'
            end
        ) as amounts,
        list_transform(
            [
                settled_list, waiting_list, dead_list, test_list, refund_list, failed_list,
                open_list, lost_list, won_list, inquiry_list, other_currency_list,
                workspace_list, conflict_list
            ],
            lambda words: array_to_string(words[:5], ', ')
            || case when len(words) > 5 then ' and ' || (len(words) - 5) || ' more' else '' end
        ) as words,
    from dated
    left join staging.currencies using (currency)
),

named as (  -- the parts of the sentences; each is null where there is nothing to say
    select
        *,
        amounts[1] as total,
        amounts[2] as expected,
        amounts[3] as received,
        amounts[4] as refunded,
        amounts[5] as disputed,
        amounts[6] as held,
        amounts[7] as kept,
        amounts[8] as lacking,
        amounts[9] as excess,
        words[1] as settled,
        words[2] as waiting,
        words[3] as dead,
        words[4] as tested,
        words[5] as refunds,
        words[6] as failed_refunds,
        words[7] as open_disputes,
        words[8] as lost_disputes,
        words[9] as won_disputes,
        words[10] as inquiries,
        words[11] as other_currencies,
        words[12] as other_workspaces,
        words[13] as conflicts,
        case item_kind
            when 'invoice' then format('invoice {} over {}', item_id, amounts[1])
            else 'no known invoice'
        end as bill,
        format('Invoice {} over {}', item_id, amounts[1]) as opening,
        case item_kind when 'charge' then item_id || ': ' else '' end as of_charge,
        strftime(began_at, '%Y-%m-%d') as began_on,
        replace(matched_by, '_', ' ') as rung_words,
    from worded
)

select
    item_id,  -- the invoice id, or the charge id
    item_kind,  -- invoice | charge
    invoice_id,  -- the gateway's infery_invoice_id; null on a charge row
    charge_id,  -- null on an invoice row: see marts.invoice_charges
    claimed_invoice_id,  -- charge rows: the one invoice its metadata names, known or not
    workspace_id,  -- the invoice's; on a charge row what its metadata claims
    kind,  -- subscription | topup; null on a charge row
    stripe_invoice_id,
    payment_intent_id,  -- of the newest linked charge, else the gateway's reference
    status,  -- one of the 22 statuses
    standing,  -- agrees | waits | needs_person
    matched_by,  -- the weakest rung among the settled linked charges, else all
    currency,  -- of every _minor beside it
    total_minor,  -- the gateway's bill; 0 on a charge row
    billed_minor,  -- Stripe's bill; null where there is none
    expected_minor,  -- what charges should bring
    charged_minor,  -- what came through charges
    out_of_band_minor,  -- what came past Stripe
    refunded_minor,  -- given back
    disputed_minor,  -- taken or held by disputes
    kept_minor,  -- what is left; may be negative
    difference_minor,  -- what is unexplained; positive: too much money
    charge_count,  -- settled linked charges
    case
        when status = 'test_mode' then
            format('Test charge {} moves no money', settled)
            || coalesce('; its metadata names ' || claimed_invoice_id, '')
        when status = 'metadata_conflict' and item_kind = 'charge' then
            format('Charge {} names more than one invoice ({})', settled, conflicts)
            || ', so it belongs to none until its metadata is mended'
        when status = 'metadata_conflict' then
            format('{} is contradicted: charge {}', opening, conflicts)
            || '; the metadata must say which invoice is meant'
        when status = 'workspace_mismatch' then
            format('{} belongs to workspace {}, but {}', opening, workspace_id, other_workspaces)
            || format('; {} came', received)
        when status = 'currency_mismatch' then
            format('{} was charged in another currency: {}', opening, other_currencies)
        when status = 'void_but_paid' then
            format('The gateway says {}, so nothing is owed on {}', gateway_status, bill)
            || format(', but {} came by {} and {} is kept', received, settled, kept)
            || ': refund it, or reissue the invoice'
        when status = 'disputed_open' then
            format('A dispute is open on charge {}{}', of_charge, open_disputes)
            || format('; {} of the {} received for {} is at risk', disputed, received, bill)
            || ': answer it in Stripe'
        when status = 'dispute_lost' then
            format('A dispute was lost on charge {}{}', of_charge, lost_disputes)
            || format('; of the {} received for {}, {} is left', received, bill, kept)
        when status = 'refund_failed' then
            'A refund failed and was not made good on charge ' || of_charge || failed_refunds
            || format('; of the {} received for {}, ', received, bill)
            || case
                when refunded_minor > 0 then format('only {} went back ({})', refunded, refunds)
                else 'nothing went back'
            end
            || ': refund it again, or pay it out otherwise'
        when status = 'refunded_full' then
            format('All of the {} that came by {} for {}', received, settled, bill)
            || format(' was refunded: {}', refunds)
        when status = 'amount_mismatch' then
            format('The gateway says that {} is paid, but only {} of ', bill, received)
            || format('{} came by {}: {} is missing', expected, settled, lacking)
        when status = 'duplicate_charge' then
            format('{} was charged more than once: {} brought {}', opening, settled, received)
            || case
                when refunded_minor > 0 then format(', {} went back ({})', refunded, refunds)
                else ''
            end
            || format('; {} too much is held: refund the charge that is one too many', excess)
        when status = 'overpaid' then
            format('For {} Stripe should hold {}, but holds {} from ', bill, expected, held)
            || settled
            || case when refunded_minor > 0 then format(' after refunds ({})', refunds) else '' end
            || format(': {} too much', excess)
        when status = 'in_flight' and item_kind = 'charge' then
            case
                when charge_state = 'waiting'
                    then format('Charge {} is pending or not captured yet', settled)
                else format('Charge {} is new', settled)
            end
            || ', and the gateway shows no invoice for it yet'
            || coalesce('; it names ' || claimed_invoice_id, '')
        when status = 'in_flight' and is_fresh then
            format('{} waits for charge {}', opening, waiting)
            || format('; {} of {} has come', received, expected)
        when status = 'in_flight' then
            format('{} was issued on {}', opening, began_on)
            || ' and no charge has settled yet, which may take some days'
        when status = 'missing_in_stripe' then
            format('{}, issued on {}, is {} for the gateway', opening, began_on, gateway_status)
            || ', but no settled charge in Stripe names it'
            || coalesce('; waiting for too long: ' || waiting, '')
            || coalesce('; declined or released: ' || dead, '')
            || coalesce('; named by a test charge, which moves no money: ' || tested, '')
        when status = 'partially_paid' then
            format('{} of the {} owed on {} came by {}', received, expected, bill, settled)
            || format('; {} is still to come, and the gateway says ', lacking) || gateway_status
        when status = 'zero_amount' and item_kind = 'charge' then
            format('Charge {} was declined or released: no money moved', settled)
            || coalesce(format('; it names {}, which is no known invoice', claimed_invoice_id), '')
        when status = 'zero_amount' and is_void then
            format('The gateway says {}: nothing is owed on {}', gateway_status, bill)
            || ', and nothing came'
        when status = 'zero_amount' then
            format('Nothing is owed on {}, and nothing came', bill)
        when status = 'missing_in_gateway' then
            format('Charge {} belongs to no gateway invoice: its metadata names ', settled)
            || coalesce(claimed_invoice_id || ', which the gateway does not know', 'none')
            || case when charge_state = 'waiting' then '; it waits since ' || began_on else '' end
            || case when refunded_minor > 0 then format('; {} was refunded', refunds) else '' end
            || coalesce(format('; a dispute over it was won: {}', won_disputes), '')
        when status = 'refunded_partial' then
            format('Of the {} that came by {} for {}', received, settled, bill)
            || format(', {} was refunded ({}) and {} is held', refunded, refunds, held)
        when status = 'paid_out_of_band' then
            format('{} was paid, in part or whole, past Stripe', opening)
        when status = 'dispute_won' then
            format('{} is paid by {}', opening, settled)
            || format(', and the dispute over it was won: {}', won_disputes)
        else
            format('{} is paid by {}', opening, settled)
            || case
                when status = 'matched' then ''
                when matched_by = 'charge_invoice_id'
                    then ', matched by the invoice id alone: a charge names no workspace'
                else format(', matched by {}', rung_words)
            end
            || case
                when refunded_minor > 0
                    then format('; the {} that was too much was refunded: {}', refunded, refunds)
                else ''
            end
    end
    || '.'
    || case
        when status = 'metadata_conflict' and has_subscription_metadata then
            ' Subscription metadata keeps an earlier invoice''s id and is set wrongly on every'
            || ' renewal: set the id on the invoice instead.'
        else ''
    end
    || case
        when item_kind = 'charge' or status = 'missing_in_stripe' then ''
        else coalesce(format(' Declined or released: {}.', dead), '')
            || coalesce(format(' A test charge names it too: {}.', tested), '')
    end
    || coalesce(format(' An inquiry moved no money: {}.', inquiries), '')
        as reason,  -- one or two sentences for a finance person: amounts, ids, the cause
    opened_at,  -- null when it agrees
    ($today - opened_at::date)::integer as age_days,
from named
