-- Every key that ever spent has its row, whatever the directory forgot, and so has the key that its
-- rotations began with.
with spenders as (
    select distinct subject_id as api_key_id
    from marts.first_spends
    where scope = 'key'
),

wanted as (
    select api_key_id, 'a key that spent' as what from spenders
    union all
    select distinct lineage_api_key_id, 'the first key of a lineage' as what from marts.keys
)

select
    null::date as usage_date,
    'marts.keys' as table_name,
    'key ' || api_key_id || ' has a row' as claim,
    what as expected,
    'none' as found,
from wanted
anti join marts.keys using (api_key_id)
order by api_key_id, what
