"""The web page (extra ``app``): a fitting room in the browser, on Streamlit. ``dressform app`` starts it.

`page` is the page; it draws what the other modules work out: `photos` and `gallery` (pictures in), `masks` (overlay and
correction), `prompts`, `settings` (from the contract), `order` (what is sent), `running` (a request under way),
`presence` (whether its visitor is there) and `history`. All that belongs to a user is in one `session.Session`; the
connection to the server is shared.
"""
