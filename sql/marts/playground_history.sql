-- What was said in a Playground request, for as long as its source's settings keep it.
--
-- The words of the record that speaks for the request, else of another that the same day has. Never
-- of an API request. A view: the words are written once, and gone at once.
--
-- kind: view
-- grain: gateway, request_id
select
    gateway,  -- whose request id it is
    request_id,
    requests.completed_at,  -- UTC
    usage_date,  -- the UTC day of completed_at
    requests.workspace_id,  -- null: unassigned
    requests.member_id,  -- who made the request
    messages,  -- what was asked: text, or JSON as the record has it
    response,  -- what was answered: text, or JSON as the record has it
    said.source_object,  -- sha256 of the object it was read from
    said.source_line,  -- physical line there, from 1
from raw.playground_history as said
inner join staging.requests as requests using (gateway, request_id, usage_date)
where requests.source = 'playground'
qualify row_number() over (
    partition by gateway, request_id
    order by
        (said.source_object, said.source_line) = (requests.source_object, requests.source_line)
        desc,
        said.source_object, said.source_line
) = 1
