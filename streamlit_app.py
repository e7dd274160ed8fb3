"""The web page on Streamlit Cloud: the server's address is the secret ``server`` (see README, Web page)."""

from dressform.app.page import main

main()
