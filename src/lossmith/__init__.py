"""lossmith"""
