"""django-otp: an installable app with a device that sends its tokens by SMS."""
