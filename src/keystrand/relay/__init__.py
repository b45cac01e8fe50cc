"""Keys for sites that are no neighbours: blocks travel hop by hop under one-time pads, over routes that share no site.

To the KMEs a relayed link is a link and the relay its module: it delivers the same numbered blocks at both ends. To the KMEs of
the hops it is an application: it draws its pads as every SAE draws keys. So pools, ledger, audit and the agreement of the two
ends are the same code, and what a relay may do is what any SAE and module may do.
"""
