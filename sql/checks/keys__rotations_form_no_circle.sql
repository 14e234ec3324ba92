-- A key that was rotated from itself, over however many keys, has no first key: its usage is shown
-- by itself. The directory is wrong, and only its owner can mend it.
--
-- severity: warning
select
    null::date as usage_date,
    'marts.keys' as table_name,
    'the rotations of key ' || api_key_id || ' begin somewhere' as claim,
    'a first key' as expected,
    'a circle by way of ' || replaces_api_key_id as found,
from marts.keys
where generation is null
order by api_key_id
