"""IPsec under keys of the KME: a post-quantum preshared key (RFC 8784) in every IKE_SA, through strongSwan's vici."""
